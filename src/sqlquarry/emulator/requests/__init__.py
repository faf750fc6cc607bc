"""Requests on their way to a service.

`authentication` checks who sends a request (`signature`) and what it holds (`body`), and `refusals` writes the answer
if it may not pass. `s3_rules` makes S3's own checks, and `broken_connections` interrupts answers. Then the room `moto`
calls the operation, whose `parameters` are checked here, whose `errors` are named here and whose lists come in `pages`.
"""
