"""The benchmarks of `make bench`: real servers and bots against a yardstick of the same run."""
