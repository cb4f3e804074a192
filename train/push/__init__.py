"""Runs and bundles are uploaded to repositories of the Hugging Face Hub, without what names patients."""
