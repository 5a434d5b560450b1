"""What lies on disk: is it whole, how was it made, are two trees equal."""
