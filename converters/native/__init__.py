"""What native files have in common: paths below a root, TFRecords, PNG headers."""
