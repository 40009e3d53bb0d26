"""Logs for other programs to watch a study in: TensorBoard, MLflow, Weights & Biases."""
