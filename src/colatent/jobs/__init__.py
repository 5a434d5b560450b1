"""How a job behaves: progress, signals, locks, devices, resources, checkpoints."""
