"""int8 and fp8 quantisation: Q/DQ graphs, calibration, and selection of the layers kept in float32."""
