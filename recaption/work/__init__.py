"""How workers share a list of shards through the file system they all see, and lose nothing."""
