"""Online reranking: the Ray Serve application and what it speaks over HTTP."""
