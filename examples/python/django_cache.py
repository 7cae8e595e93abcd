"""A Django site with its cache and its sessions in Olivia: the built-in Redis backend, or django-redis.

    python examples/python/django_cache.py [--django-redis]

Then: curl http://127.0.0.1:8000/report
Environment: OLIVIA_URL (redis://127.0.0.1:5454/0; with a password redis://:PASSWORD@HOST:PORT/0), PORT (8000).
"""

import os
import sys
import time
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

BACKENDS = {
    "built-in": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
}
IS_DJANGO_REDIS = "--django-redis" in sys.argv[1:]

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    CACHES={
        "default": {
            "BACKEND": BACKENDS["django-redis" if IS_DJANGO_REDIS else "built-in"],
            "LOCATION": os.environ.get("OLIVIA_URL", "redis://127.0.0.1:5454/0"),
            "KEY_PREFIX": "site",
            "TIMEOUT": 300,
        }
    },
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="an example's; a site draws its own",
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
)


def report(_request):
    """Computed once per minute for all processes of the site."""
    from django.core.cache import cache

    return JsonResponse(cache.get_or_set("report", lambda: {"computed_at": time.time_ns()}, timeout=60))


def visits(request):
    """Counts in the visitor's session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


def hits(_request):
    """Counts for all visitors, in one atomic step.

    Not by django-redis's cache.incr(): it needs EVAL; where EVAL is missing it reads and writes in two steps.
    """
    if IS_DJANGO_REDIS:
        from django_redis import get_redis_connection

        return JsonResponse({"hits": get_redis_connection("default").incr("site:hits")})
    from django.core.cache import cache

    cache.add("hits", 0, timeout=None)
    return JsonResponse({"hits": cache.incr("hits")})


urlpatterns = [path("report", report), path("visits", visits), path("hits", hits)]

if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), get_wsgi_application()) as server:
        print(f"http://127.0.0.1:{server.server_port}/report", flush=True)
        server.serve_forever()
