"""The page and the chapter of the benchmark across data sets."""
