"""The checks that a request passes on its way to a service.

`authentication` checks the sender (`signature`) and the body (`body`) of a request. `refusals` writes the answer to
refused requests. `s3_rules` applies S3's own checks, and `broken_connections` interrupts answers. Then
`sqlquarry.emulator.moto` calls the operation. `parameters`, `errors` and `pages` are helpers of the operations.
"""
