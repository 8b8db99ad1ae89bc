"""One file a family of requests; every scenario registers itself."""
