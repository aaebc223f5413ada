"""What the studies are made of, where a study is too long for one file."""
