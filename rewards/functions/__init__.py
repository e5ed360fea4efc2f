"""Pure functions of tensors that turn the outputs of judges, detectors and encoders into rewards; no weights.

They are what the catalogue of methods puts on the reward's side of the line: a trainer's objective stands in
`diffalign.losses`. Import them from their modules.
"""
