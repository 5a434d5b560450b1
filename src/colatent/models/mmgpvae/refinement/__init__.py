"""The steps after stochastic gradient training, and the refinement of sites in inference."""
