'use strict';
// Without it the browser loads the page again every 5 s. With it, what is marked as live is taken from a new copy of the
// page each second; the rest stays, and with it the focus, the chosen time and what is open.
async function refresh() {
  try {
    if (!document.hidden && getSelection().isCollapsed) {
      const response = await fetch('/', {cache: 'no-store', signal: AbortSignal.timeout(3000)});
      if (!response.ok) throw new Error('refused: ' + response.status);
      const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
      for (const part of document.querySelectorAll('.live')) {
        const now = fresh.getElementById(part.id);
        if (!part.isEqualNode(now)) part.replaceChildren(...now.childNodes);
      }
    }
  } catch (error) {
    const note = document.createElement('span');
    note.className = 'bad';
    note.textContent = error.message.startsWith('refused') ? error.message : 'no answer from this node';
    document.getElementById('state').replaceChildren(note);
  }
  setTimeout(refresh, 1000);
}
document.title = 'Olivia ' + location.host;
setTimeout(refresh, 1000);
