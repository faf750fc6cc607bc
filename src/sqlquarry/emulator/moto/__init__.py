"""The connection to moto, which routes requests to services, and all code that relies on moto's private parts.

`server` listens, `operations` replaces moto's operations with the emulator's, `s3_objects` stores large objects in
files, `state` reads moto's state, and `compatibility` checks that the installed version of moto was tested.
"""
