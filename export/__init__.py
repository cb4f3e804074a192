"""Stageproof export: checkpoints → a bundle whose every artifact decides as the original does."""
