"""Monitor a window of production messages: class prior, label shift, decision."""
