"""Settings of the smallest VAE that learns anything, for tests of the family's experiments."""

TINY = {
    "samples": 60,
    "epochs": 2,
    "hidden_layers": 1,
    "hidden_units": 6,
    "latent_size": 2,
    "batch_size": 30,
    "learning_rate": 1e-2,
}
