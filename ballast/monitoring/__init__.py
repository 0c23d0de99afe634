"""What a window of production messages says: its class prior, label shift, the decision."""
