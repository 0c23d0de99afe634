"""What people read of the validation: an index page of our own over the pages of Great Expectations."""
