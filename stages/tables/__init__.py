"""Tables of messages as users have them: what is detected, and one reader for training, production and feedback."""
