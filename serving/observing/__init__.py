"""What is told of requests and models: metrics, logs, spans."""
