"""Functions that turn what a judge, a detector or an encoder says into rewards: pure, of tensors, without weights.

They are what the catalogue of methods puts on the reward's side of the line: a trainer's objective stands in
`diffalign.losses`. Import them from their modules.
"""
