"""int8 and fp8: quantised graphs, and which layers stay in float."""
