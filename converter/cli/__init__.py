"""The command line: one file per verb. Prints; everything below it only returns and raises."""
