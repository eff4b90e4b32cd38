"""Programs built as Pyro's published examples are, small: vae, ss_vae_M2, cvae and dmm.

Sites, plates, handlers and the way in which arguments reach guide and model are those of the
examples; layers are narrow, and there are a few rows.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TransformedDistribution
from pyro.distributions.transforms import affine_autoregressive
from torch import nn


class Vae(nn.Module):
    """A plate of rows, and ``pyro.module`` for encoder and decoder."""

    def __init__(self, width=6, z_dim=2):
        super().__init__()
        self.encoder_loc, self.encoder_scale = nn.Linear(width, z_dim), nn.Linear(width, z_dim)
        self.decoder = nn.Linear(z_dim, width)
        self.width, self.z_dim = width, z_dim

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = x.new_zeros(x.shape[0], self.z_dim), x.new_ones(x.shape[0], self.z_dim)
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc_img = self.decoder.forward(z).sigmoid()
            pyro.sample(
                "obs",
                dist.Bernoulli(loc_img, validate_args=False).to_event(1),
                obs=x.reshape(-1, self.width),
            )
            return loc_img

    def guide(self, x):
        pyro.module("encoder_loc", self.encoder_loc)
        pyro.module("encoder_scale", self.encoder_scale)
        with pyro.plate("data", x.shape[0]):
            flat = x.reshape(-1, self.width)
            loc, scale = self.encoder_loc(flat), self.encoder_scale(flat).exp()
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


class SemiSupervised(nn.Module):
    """A plate without a size, a class that is enumerated or observed, and ``torch.cat``.

    The concatenation does not broadcast, as in the example unless it enumerates in parallel.
    """

    def __init__(self, width=6, classes=3, z_dim=2):
        super().__init__()
        self.encoder_y = nn.Sequential(nn.Linear(width, classes), nn.Softmax(-1))
        self.encoder_z = nn.Linear(width + classes, 2 * z_dim)
        self.decoder = nn.Linear(z_dim + classes, width)
        self.classes, self.z_dim = classes, z_dim

    def model(self, xs, ys=None):
        pyro.module("ss_vae", self)
        batch_size = xs.size(0)
        with pyro.plate("data"):
            prior_loc = xs.new_zeros(batch_size, self.z_dim)
            prior_scale = xs.new_ones(batch_size, self.z_dim)
            zs = pyro.sample("z", dist.Normal(prior_loc, prior_scale).to_event(1))
            alpha_prior = xs.new_ones(batch_size, self.classes) / self.classes
            ys = pyro.sample("y", dist.OneHotCategorical(alpha_prior), obs=ys)
            loc = self.decoder(torch.cat([zs, ys], -1)).sigmoid()
            pyro.sample("x", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=xs)

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                alpha = self.encoder_y(xs)
                ys = pyro.sample("y", dist.OneHotCategorical(alpha))
            loc, raw = self.encoder_z(torch.cat([xs, ys], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class Conditional(nn.Module):
    """A baseline net that nobody registers, a prior given inputs, and outputs picked by a mask."""

    def __init__(self, width=6, z_dim=2):
        super().__init__()
        self.baseline_net = nn.Linear(width, width)
        self.prior_net = nn.Linear(2 * width, 2 * z_dim)
        self.generation_net = nn.Linear(z_dim, width)
        self.recognition_net = nn.Linear(2 * width, 2 * z_dim)

    def model(self, xs, ys=None):
        pyro.module("generation_net", self)
        batch_size = xs.shape[0]
        with pyro.plate("data"):
            with torch.no_grad():
                y_hat = self.baseline_net(xs).view(xs.shape)
            prior_loc, raw = self.prior_net(torch.cat([xs, y_hat], -1)).chunk(2, -1)
            zs = pyro.sample("z", dist.Normal(prior_loc, raw.exp()).to_event(1))
            loc = self.generation_net(zs).sigmoid()
            if ys is not None:
                mask_loc = loc[(xs == -1).view(batch_size, -1)].view(batch_size, -1)
                mask_ys = ys[xs == -1].view(batch_size, -1)
                pyro.sample(
                    "y", dist.Bernoulli(mask_loc, validate_args=False).to_event(1), obs=mask_ys
                )
            else:
                pyro.deterministic("y", loc.detach())
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                y_hat = self.baseline_net(xs).view(xs.shape)
                loc, raw = self.prior_net(torch.cat([xs, y_hat], -1)).chunk(2, -1)
            else:
                loc, raw = self.recognition_net(torch.cat([xs, ys], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class DeepMarkov(nn.Module):
    """A site for each step of a markov loop, masks by length, a scale, and an RNN in the guide."""

    def __init__(self, width=4, z_dim=2, flows=0):
        super().__init__()
        self.trans, self.emitter = nn.Linear(z_dim, 2 * z_dim), nn.Linear(z_dim, width)
        self.rnn = nn.RNN(width, z_dim, batch_first=True)
        self.combiner = nn.Linear(z_dim, 2 * z_dim)
        self.iafs = nn.ModuleList([affine_autoregressive(z_dim, [8]) for _ in range(flows)])
        self.z_0 = nn.Parameter(torch.zeros(z_dim))
        self.z_q_0 = nn.Parameter(torch.zeros(z_dim))
        self.h_0 = nn.Parameter(torch.zeros(1, 1, z_dim))

    def model(self, batch, batch_reversed, batch_mask, annealing_factor=1.0):
        steps = batch.size(1)
        pyro.module("dmm", self)
        z_prev = self.z_0.expand(batch.size(0), self.z_0.size(0))
        with pyro.plate("z_minibatch", len(batch)):
            for t in pyro.markov(range(1, steps + 1)):
                z_loc, raw = self.trans(z_prev).chunk(2, -1)
                with poutine.scale(scale=annealing_factor):
                    z_t = pyro.sample(
                        f"z_{t}",
                        dist.Normal(z_loc, raw.exp()).mask(batch_mask[:, t - 1 : t]).to_event(1),
                    )
                probs = self.emitter(z_t).sigmoid()
                pyro.sample(
                    f"obs_x_{t}",
                    dist.Bernoulli(probs).mask(batch_mask[:, t - 1 : t]).to_event(1),
                    obs=batch[:, t - 1, :],
                )
                z_prev = z_t

    def guide(self, batch, batch_reversed, batch_mask, annealing_factor=1.0):
        steps = batch.size(1)
        pyro.module("dmm", self)
        h_0 = self.h_0.expand(1, batch.size(0), self.rnn.hidden_size).contiguous()
        rnn_output = self.rnn(batch_reversed, h_0)[0].flip(1)
        z_prev = self.z_q_0.expand(batch.size(0), self.z_q_0.size(0))
        with pyro.plate("z_minibatch", len(batch)):
            for t in pyro.markov(range(1, steps + 1)):
                h = 0.5 * (self.combiner(z_prev).chunk(2, -1)[0] + rnn_output[:, t - 1, :])
                z_loc, raw = h, self.combiner(h).chunk(2, -1)[1]
                z_dist = dist.Normal(z_loc, raw.exp())
                with poutine.scale(scale=annealing_factor):
                    if len(self.iafs) > 0:
                        z_dist = TransformedDistribution(z_dist, list(self.iafs))
                        with poutine.mask(mask=batch_mask[:, t - 1]):
                            z_t = pyro.sample(f"z_{t}", z_dist)
                    else:
                        z_t = pyro.sample(
                            f"z_{t}", z_dist.mask(batch_mask[:, t - 1 : t]).to_event(1)
                        )
                z_prev = z_t


def bits(*shape, seed=0):
    return torch.bernoulli(torch.full(shape, 0.5), generator=torch.Generator().manual_seed(seed))


def sequences(rows=4, steps=3, width=4):
    """Sequences, the same reversed, and a mask of the steps that they have."""
    x = bits(rows, steps, width)
    lengths = torch.arange(rows) % steps + 1
    mask = torch.arange(steps) < lengths[:, None]
    x = x * mask[..., None]
    reversed_ = torch.stack(
        [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths.tolist(), strict=True)]
    )
    return x, reversed_, mask
