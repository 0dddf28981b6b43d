"""Make it so: penalties, masks, the training loop."""
