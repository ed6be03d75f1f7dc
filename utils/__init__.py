"""What both data sets share: the BAS model, losses, localization, metrics, data and training engine."""
