"""The machine that figures were taken on."""
