"""The pages of the watch: the time line and a drift page per window."""
