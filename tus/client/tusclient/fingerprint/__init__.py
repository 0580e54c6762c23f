"""What identifies a file in a storage of URLs."""
