"""What the updates of a run give away: images and labels from gradients."""
