"""Pictures of checks, of numbers that are known."""

import torch
from oracle import LinearGaussian

from ppl_vae import plot_calibration
from ppl_vae.workflow.checks.calibration import calibrate


def test_plot_shows_the_worst(tmp_path):
    import matplotlib.pyplot as plt

    vae = LinearGaussian.random(16, 64).vae()
    with torch.no_grad():
        vae.encoder.scale_head.bias[3] -= 2.0
    result = calibrate(vae, progress=False)
    figure = plot_calibration(result, max_quantities=3)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith("z[3]: too narrow\np below 1e-16")
    assert [title.split(":")[0] for title in titles[1:]] == ["log_likelihood", "log_joint"]
    figure.savefig(tmp_path / "calibration.png")
    assert len(plot_calibration(result).axes) == 12
    assert not plt.get_fignums()
