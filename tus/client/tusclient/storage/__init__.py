"""Where the URLs of uploads are stored."""
