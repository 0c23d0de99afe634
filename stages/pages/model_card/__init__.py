"""The card that goes with the selected model: what it says, and its template."""
