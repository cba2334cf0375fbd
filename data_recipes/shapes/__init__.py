"""The embedded world: colored shapes on a grid, prompts about them, and an oracle that reads pictures.

`scene` and `render` make pictures, `claims` and `prompts` say what is asked of them, `oracle` reads them,
`candidates` makes faulty ones and `recipe` turns it all into preference groups. Nothing is downloaded.
"""
