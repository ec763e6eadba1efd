"""The application: the only part that knows Hydra and OmegaConf."""
