r"""The README's figures and the command that draws them from a finished run, `python -m Img`.

`network.svg` is kept by hand, in any editor of SVG or text. `network.png`, for viewers without SVG, is a picture of it:

    chromium --headless --hide-scrollbars --window-size=880,752 --force-device-scale-factor=2 \
        --screenshot=Img/network.png Img/network.svg
"""

import utils  # noqa: F401 - before anything that a missing requirement could stop
