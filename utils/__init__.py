"""What both data sets share: the BAS model, losses, localization, metrics, data and training engine."""

from utils.system.imports import tell_failed_imports

tell_failed_imports()
