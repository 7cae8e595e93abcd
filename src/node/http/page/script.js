'use strict';
// Without this script the browser reloads the page every 5 s. The script replaces the elements of class live from a new
// copy of the page each second; the focus, the chosen span and open details stay.
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
