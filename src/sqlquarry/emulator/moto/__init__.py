"""moto, which carries requests to services, and everything that relies on its private parts.

`server` listens, `operations` lets the emulator's services answer in place of moto's, `s3_objects` keeps large objects
in files, `state` reads what moto holds, and `compatibility` checks that the installed moto is one that was tested.
"""
