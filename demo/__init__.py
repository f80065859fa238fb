"""The page. Gradio reads the environment when it is imported; this comes first, so that it sends nothing home."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
