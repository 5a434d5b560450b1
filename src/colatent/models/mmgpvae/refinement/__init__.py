"""What follows the training by gradients, and the refinement of sites in inference."""
