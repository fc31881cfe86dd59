"""What `extensions` of `connect` and `serve` takes."""
