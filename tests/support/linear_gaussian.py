"""A latent variable model whose evidence and posterior are known: p(x|z) = N(Wz + b, s²I)."""

import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal


class LinearGaussian(nn.Module):
    """A decoder with z ~ N(0, I); x ~ N(b, WWᵀ + s²I), z|x ~ N(ΛWᵀ(x − b)/s², Λ).

    Λ = (I + WᵀW/s²)⁻¹ is diagonal where W has orthogonal columns.
    """

    def __init__(self, orthogonal=True, dtype=torch.float64):
        super().__init__()
        second = [0.8, 0.6, -0.5] if orthogonal else [1.0, 0.4, 0.3]
        # Orthogonal: 1 · 0.8 − 0.5 · 0.6 + 1 · (−0.5) = 0.
        columns = torch.tensor([[1.0, -0.5, 1.0], second], dtype=dtype)
        self.weight = nn.Parameter(columns.T.contiguous())
        self.bias = nn.Parameter(torch.tensor([0.3, -0.2, 0.1], dtype=dtype))
        self.std = 0.7
        self.requires_grad_(False)

    def forward(self, z):
        return Independent(Normal(z @ self.weight.T + self.bias, self.std), 1)

    def evidence(self, x):
        covariance = self.weight @ self.weight.T + self.std**2 * torch.eye(3, dtype=x.dtype)
        return MultivariateNormal(self.bias, covariance).log_prob(x)

    def posterior(self, x):
        precision = torch.eye(2, dtype=x.dtype) + self.weight.T @ self.weight / self.std**2
        covariance = torch.linalg.inv(precision)
        mean = (x - self.bias) @ self.weight @ covariance / self.std**2
        return MultivariateNormal(mean, covariance.expand(len(x), 2, 2))

    def diagonal_posterior(self, x):
        exact = self.posterior(x)
        return Independent(Normal(exact.mean, exact.variance.sqrt()), 1)

    def images(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        dtype = self.bias.dtype
        z = torch.randn(count, 2, generator=generator, dtype=dtype)
        noise = torch.randn(count, 3, generator=generator, dtype=dtype)
        return z @ self.weight.T + self.bias + self.std * noise


class LinearEncoder(nn.Module):
    """q(z|x) = N(Ax + a, diag exp(2c)), wrapped by `form`; its family holds Λ if diagonal."""

    def __init__(self, form=lambda mean, std: Independent(Normal(mean, std), 1)):
        super().__init__()
        self.mean = nn.Linear(3, 2)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        self.log_std = nn.Parameter(torch.zeros(2))
        self.form = form

    def forward(self, x):
        mean = self.mean(x)
        return self.form(mean, self.log_std.exp().expand_as(mean))


class FullCovarianceEncoder(nn.Module):
    """q(z|x) = N(Ax + a, RRᵀ) with a full R: its family holds every Λ."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(3, 2)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        self.root = nn.Parameter(torch.eye(2))

    def forward(self, x):
        lower = self.root.tril(-1) + torch.diag(self.root.diagonal().abs())
        return MultivariateNormal(self.mean(x), scale_tril=lower.expand(len(x), 2, 2))
