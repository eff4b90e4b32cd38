"""What a VAE is made of: priors, decoders, encoders, and the networks inside them."""
