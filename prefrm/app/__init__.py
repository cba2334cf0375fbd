"""Pages in a browser on which a person tries and audits judges, and collects preferences.

One view is one page: `prefrm.app.application` makes an application of several. What needs no page, such as a
queue, a store or a search for disagreements, stands in modules that import no gradio.
"""

from prefrm.app.judges import Judges

__all__ = ["Judges"]
