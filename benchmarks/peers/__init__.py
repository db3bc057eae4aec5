"""What the benchmarks compare with: each peer does the same task the way its users do it today."""
