"""The page to label messages on."""
