"""The codecs of the literature, one file a paper, and the registry that names them."""
